#!/usr/bin/env python3
"""Order one image, wait for it, and print its URL. Needs nothing but Python.

GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_KEY=sk-… python3 image.py "A lighthouse at dusk"
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

POLL_INTERVAL_S = 1
WAIT_MAX_S = 120


def main() -> int:
    prompt = " ".join(sys.argv[1:]) or "A lighthouse at dusk, cinematic composition"
    try:
        job = call("/api/texttoimage/", {"model": "realvision", "prompt": prompt, "width": 1152, "height": 768})
        if job["status"] != "success":
            return fail("the image was not accepted")
        return wait_for({"jobid": str(job["jobid"]), "signature": job["signature"]})
    except urllib.error.HTTPError as refusal:
        return fail(f"{refusal.code}: {refusal.read().decode()}")


def wait_for(job: dict[str, str]) -> int:
    """Poll until the job has ended; any status but success and error means that it still runs."""
    give_up_at = time.monotonic() + WAIT_MAX_S
    while time.monotonic() < give_up_at:
        state = call("/api/texttoimage/jobs/", job)
        if state["status"] == "success":
            print(state["image_url"])
            return 0
        if state["status"] == "error":
            return fail("the image failed; it is not charged")
        time.sleep(POLL_INTERVAL_S)
    return fail(f"no image after {WAIT_MAX_S} seconds")


def call(path: str, body: dict[str, object] | dict[str, str]) -> dict[str, str]:
    request = urllib.request.Request(
        os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080") + path,
        data=json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ['GATEWAY_KEY']}",
        },
    )
    with urllib.request.urlopen(request) as response:
        answer: dict[str, str] = json.load(response)
        return answer


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
