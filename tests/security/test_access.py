"""Who may talk to the server: --token, --read_only, --allow_origin, --root_path through a real nginx; and no torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served import ROOT, Served, is_json_error

from captcha_reader.errors import UserError
from captcha_reader.web.access import Access

pytest_plugins = ["served"]

TOKEN = "correct-horse-battery"
SITE = "https://shop.example"


@pytest.fixture(scope="module")
def guarded(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a token, another site that may call, and a prefix."""
    folder = tmp_path_factory.mktemp("guarded")
    flags = ["--token", TOKEN, "--allow_origin", SITE, "--root_path", "/captcha", "--read_only"]
    server = Served(models_folder, folder / "data", *flags, temporary=folder / "tmp")
    yield server
    server.stop()


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_a_token_is_asked_for(guarded: Served, png: bytes):
    client = guarded.client
    for path in ("/models", "/config", "/openapi.json", "/gradio_api/info", "/captcha/models"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"captcha_reader={TOKEN}"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401 and is_json_error(answer)
        assert client.get(path, headers=BEARER).status_code == 200
    assert client.post("/predict", files={"file": png}).status_code == 401
    assert client.post("/predict", files={"file": png}, headers=BEARER).json()["text"] == "7kPx2"
    assert client.get("/health").status_code == 200


def test_who_is_refused_while_he_still_sends_reads_why(guarded: Served):
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 401"  # the server is done with it
        for _ in range(30):
            client.sendall(b"x" * 100_000)
        assert b"a token is needed" in client.recv(10_000)
        client.shutdown(socket.SHUT_WR)
        while client.recv(10_000):
            pass


def test_a_browser_gets_a_form_and_keeps_a_cookie(guarded: Served):
    browser = {"Accept": "text/html"}
    with httpx.Client(base_url=guarded.address, trust_env=False, timeout=60) as client:
        page = client.get("/", headers=browser)
        assert page.status_code == 401 and 'type="password"' in page.text and TOKEN not in page.text
        for path in ("/captcha", "/captcha/", "/captcha/docs", "/"):  # without the slash, `access` would be elsewhere
            assert 'action="/captcha/access"' in client.get(path, headers=browser).text, path
        assert client.post("/access", data={"token": "wrong"}, headers=browser).status_code == 401
        answer = client.post("/access", data={"token": TOKEN}, headers=browser)
        assert answer.status_code == 303
        said = answer.headers["set-cookie"]
        assert "HttpOnly" in said and "SameSite" in said and TOKEN not in said
        value = re.match(r"captcha_reader=(\w+)", said)[1]  # type: ignore[index]
        cookie = {"Cookie": f"captcha_reader={value}"}
        assert client.get("/", headers=browser | cookie).status_code == 200
        again = client.post("/access", data={"token": TOKEN}, headers=browser | cookie)  # of another tab
        assert again.status_code == 303 and again.headers["location"] == "/captcha/"


def test_a_site_that_is_named_may_call_and_no_other(guarded: Served, png: bytes):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = guarded.client.options("/predict", headers={"Origin": SITE} | ask)
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == SITE
    other = guarded.client.options("/predict", headers={"Origin": "https://evil.example"} | ask)
    assert "access-control-allow-origin" not in other.headers
    cross = {"Origin": SITE, "Sec-Fetch-Site": "cross-site"} | BEARER
    answer = guarded.client.post("/predict", files={"file": png}, headers=cross)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == SITE
    assert "access-control-allow-credentials" not in answer.headers
    for path, status in (("/nowhere", 404), ("/models/reader.onnx", 403)):
        refused = guarded.client.get(path, headers=cross)
        assert refused.status_code == status and refused.headers["access-control-allow-origin"] == SITE, "it reads why"


def test_read_only_downloads_nothing(guarded: Served):
    answer = guarded.client.get("/models/reader.onnx", headers=BEARER)
    assert answer.status_code == 403 and is_json_error(answer)


def test_the_prefix_holds_whether_the_proxy_cuts_it_or_not(guarded: Served, png: bytes):
    for start in ("", "/captcha"):
        models = guarded.client.get(f"{start}/models", headers=BEARER).json()["models"]
        assert models[0]["url"] == "/captcha/models/reader.onnx"
        assert guarded.client.get(f"{start}/openapi.json", headers=BEARER).json()["servers"] == [{"url": "/captcha"}]
        docs = guarded.client.get(f"{start}/docs", headers=BEARER)
        assert docs.status_code == 200 and 'src="docs/' in docs.text.replace("'", '"')
        answer = guarded.client.post(f"{start}/predict", files={"file": png}, headers=BEARER)
        assert answer.json()["text"] == "7kPx2"
    assert "Warning" not in guarded.said


NGINX = """
worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /captcha/ {{
      proxy_pass http://127.0.0.1:{upstream}{ending};
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_buffering off; client_max_body_size 130m;
    }}
  }}
}}
"""


@pytest.mark.skipif(not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), reason="nginx is not installed")
@pytest.mark.parametrize("ending", ["/", ""], ids=["prefix cut off", "prefix left"])
def test_behind_a_real_nginx(models_folder: Path, png: bytes, tmp_path: Path, ending: str):
    server = Served(models_folder, tmp_path / "data", "--root_path", "/captcha", temporary=tmp_path / "tmp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, upstream=server.port, ending=ending))
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    proxy = subprocess.Popen([str(nginx), "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/captcha", trust_env=False, timeout=60) as client:
            end = time.monotonic() + 20
            while True:
                try:
                    client.get("/health")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            assert client.get("/health").json()["status"] == "ok"
            assert client.post("/predict", files={"file": png}).json()["text"] == "7kPx2"
            assert client.get("/models").json()["models"][0]["url"].startswith("/captcha/models/")
            page = client.get("/")
            assert page.status_code == 200
            root = json.loads(re.search(r"gradio_config = (\{.*?\});</script>", page.text, re.DOTALL)[1])["root"]  # type: ignore[index]
            assert root == f"http://127.0.0.1:{port}/captcha"
            assert client.get("/docs").status_code == 200 and client.get("/openapi.json").status_code == 200
            # The page's own calls, as its client makes them.
            path = client.post("/gradio_api/upload", files={"files": ("a.png", png)}).json()[0]
            begun = client.post("/gradio_api/call/detect_captcha", json={"data": [{"path": path}, None]})
            said = client.get(f"/gradio_api/call/detect_captcha/{begun.json()['event_id']}").text
            assert "7kPx2" in said
            assert client.post("/predict", files={"file": png}, headers={"Origin": "http://evil.example"}).is_error
            origin = {"Origin": f"http://127.0.0.1:{port}"}
            assert client.post("/predict", files={"file": png}, headers=origin).status_code == 200
    finally:
        proxy.terminate()
        proxy.wait(20)
        server.stop()


# --------------------------------------------------------------------------------------------------------------------
# Without a server


def test_names_and_sites():
    local = Access()
    assert local.knows_host("127.0.0.1:7860") and local.knows_host("localhost") and local.knows_host("[::1]:80")
    assert not local.knows_host("192.168.1.5") and not local.knows_host("example.org") and not local.knows_host("")
    everywhere = Access(host="0.0.0.0")
    assert everywhere.knows_host("192.168.1.5:7860") and everywhere.knows_host("[fe80::1]")
    assert not everywhere.knows_host("rebound.example")
    public = Access(root_path="https://example.org/captcha", allow_origin=("http://a.example:8080",))
    assert public.prefix == "/captcha" and public.knows_host("example.org") and public.knows_host("EXAMPLE.org:443")
    assert public.knows_origin({"origin": "https://example.org", "sec-fetch-site": "cross-site", "host": "inner"})
    assert public.knows_origin({"origin": "http://a.example:8080", "sec-fetch-site": "cross-site"})
    assert not public.knows_origin({"origin": "http://a.example", "sec-fetch-site": "cross-site"})
    assert not public.knows_origin({"origin": "null", "host": "null"})


def test_a_warning_where_everybody_may_do_everything():
    assert Access().warning is None and Access(host="127.0.0.2").warning is None
    assert "--token" in (Access(host="0.0.0.0").warning or "") and "--read_only" in (Access(host="::").warning or "")
    assert Access(host="0.0.0.0", token="12345678").warning is None
    assert Access(host="0.0.0.0", read_only=True).warning is None
    assert "this machine" in Access().said and "this machine." not in Access(root_path="/captcha").said
    assert "everybody" in Access(host="0.0.0.0").said
    assert "know the token" in Access(host="0.0.0.0", token="12345678").said


@pytest.mark.parametrize(
    "settings",
    [
        {"root_path": "captcha"}, {"root_path": "/a b"}, {"root_path": "ftp://x/y"}, {"allow_origin": ("*",)},
        {"allow_origin": ("example.org",)}, {"allow_origin": ("https://a/b",)}, {"token": "short"},
        {"token": "with a blank"},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings: dict):
    with pytest.raises(UserError, match="--"):
        Access(**settings)


def test_what_needs_torch_is_not_offered_without_it(tmp_path: Path):
    """With requirements-serve.txt alone."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NoTorch())
from captcha_reader.errors import UserError
from interface import open_models
models = open_models({str(ROOT / "saved_models")!r}, threads=1)
assert not models.torch and list(models.paths()) == ["reader.onnx"], list(models.paths())
for name in ("reader.safetensors", "efficientnet.safetensors"):
    try:
        models.predictor(name)
    except UserError as error:
        print(error)
try:
    open_models(checkpoint={str(ROOT / "saved_models/efficientnet.safetensors")!r})
except UserError as error:
    print(error)
from pathlib import Path
picture = Path({str(ROOT / "examples/7kPx2.png")!r}).read_bytes()
from interface import detect_captcha
assert detect_captcha(picture, None, models)["text"] == "7kPx2"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3 and "pip install -r requirements.txt" in said[2]
