"""What a team would write first: an extension of a few lines with boto3 and requests, which sends something for each
invocation.
"""

from __future__ import annotations

import json
import os

import boto3
import requests

API = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2020-01-01/extension"
sqs = boto3.client("sqs")

registered = requests.post(
    f"{API}/register",
    headers={"Lambda-Extension-Name": "few-lines"},
    json={"events": ["INVOKE", "SHUTDOWN"]},
    timeout=10,
)
headers = {"Lambda-Extension-Identifier": registered.headers["Lambda-Extension-Identifier"]}

while True:
    event = requests.get(f"{API}/event/next", headers=headers, timeout=None).json()
    if event["eventType"] == "SHUTDOWN":
        break
    sqs.send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=json.dumps(event))
