"""How weak a captcha is: the figures, the pictures and the page of the strength report."""
