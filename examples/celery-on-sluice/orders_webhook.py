"""The same orders, worked on by a webhook: Sluice delivers what Celery sends, and no Celery worker runs.

WEBHOOK_SECRET=whsec_… python orders_webhook.py
"""

import base64
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from orders_celery import app
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])


def work_on(body: bytes) -> object:
    """A delivery is the message as Celery sent it: JSON within Base64, and in it the arguments, in the same form."""
    message = json.loads(base64.b64decode(json.loads(body)))
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return app.tasks[message["headers"]["task"]](*args, **kwargs)


class Orders(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            webhook.verify(body, dict(self.headers))
            status, result = 200, work_on(body)
        except WebhookVerificationError:
            status, result = 401, "the signature does not match"
        except Exception as error:  # Sluice delivers it again
            status, result = 500, repr(error)
        answer = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Orders).serve_forever()
