"""What the scripts share. Importing it, or anything in it, switches off what libraries report to their makers."""

from __future__ import annotations

import os

# Here, since every script comes through here before a library reads these. A value that somebody set stays.
for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime looks up mobile.events.data.microsoft.com and keeps a device id
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # `datasets` counts each load of a file on s3.amazonaws.com
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(_name, _value)
