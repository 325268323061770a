"""`POST /api/texttoimage/`, `POST /api/texttoimage/jobs/` and the pictures themselves."""

from __future__ import annotations

import asyncio
import time

from gateway.emulator.account import Account
from gateway.emulator.answers import Event
from gateway.emulator.contract import parse_image, parse_poll
from gateway.emulator.delivery import DELIVERY_FAULTS, deliver, hold_back
from gateway.emulator.exchange import Exchange
from gateway.emulator.faults import Faults
from gateway.emulator.jobs import Job
from gateway.emulator.png import draw
from gateway.emulator.prices import IMAGE_NANO_USD
from gateway.emulator.shapes import JSON, Reply, json_reply, replaced

NO_JOB = {"status": "error", "jobid": None, "signature": None}
"""The documented error of a submission."""


def image_error(status: int, message: str) -> Reply:
    """The documented error, and beside it a message for whoever develops against the emulator."""
    return json_reply(status, {**NO_JOB, "message": message})


async def submit(account: Account, exchange: Exchange, body: bytes) -> None:
    """Accept an image job and charge it. Raises BadRequest, BadFault."""
    request = parse_image(body)
    faults = account.faults_of(exchange, "image", request.prompt)
    bill = account.bill
    line = bill.open("image", request.model, IMAGE_NANO_USD, exchange.header(b"x-request-id"), faults.text)
    if line is None:
        await exchange.respond(image_error(402, "your balance does not cover this image; top up"))
        return
    try:
        reply = replaced(faults, exchange.header(b"authorization") or "")
        if reply is None and "no_job" in faults:
            reply = json_reply(200, NO_JOB)
        if reply is None:
            job = account.jobs.submit(request, bill, line, faults)
            if "job_again" in faults:
                job = account.jobs.by_number(str(job.jobid - 1)) or job
            reply = json_reply(200, {"status": "success", "jobid": job.jobid, "signature": job.signature})
        line.finished = await _send(account, exchange, reply, faults)
    finally:
        line.client_left = exchange.left.is_set()
        line.sent_bytes = exchange.sent_bytes
        bill.close(line)


async def poll(account: Account, exchange: Exchange, body: bytes) -> None:
    """Tell the state of a job; no key is needed. Raises BadRequest, BadFault."""
    jobid, signature = parse_poll(body)
    faults = account.faults_of(exchange, "poll", "")
    reply = replaced(faults, exchange.header(b"authorization") or "")
    if reply is None:
        reply = json_reply(200, _state(account.jobs.find(jobid, signature), exchange.header(b"host") or "localhost"))
    await _send(account, exchange, reply, faults)


async def picture(account: Account, exchange: Exchange, body: bytes) -> None:
    """Serve the picture of a job that ended well."""
    name = exchange.path.removeprefix("/images/").removesuffix(".png")
    job = account.jobs.by_number(name)
    if job is None or job.state != "success":
        await exchange.respond(json_reply(404, {"error": {"message": "there is no such image"}}))
        return
    request = job.request
    data = await asyncio.to_thread(draw, request.width, request.height, request.digest)
    await exchange.respond(Reply(200, data, b"image/png"))


def _state(job: Job | None, host: str) -> dict[str, str | None]:
    if job is None:
        return {"status": "error", "image_url": None, "message": "job not found"}
    state = job.poll(time.monotonic())
    if state == "success":
        return {
            "status": "success",
            "image_url": f"http://{'localhost:1' if job.is_elsewhere else host}/images/{job.jobid}.png",
            "message": "success",
        }
    if state == "error":
        return {"status": "error", "image_url": None, "message": "the image could not be generated"}
    return {"status": "processing", "image_url": None, "message": "processing"}


async def _send(account: Account, exchange: Exchange, reply: Reply, faults: Faults) -> bool:
    """Send a reply the way the faults ask; True when it went out whole."""
    await hold_back(exchange, faults, account.gate)
    if exchange.left.is_set():
        return False
    if "reset" in faults:
        exchange.break_off(reset=True)
        return False
    if not DELIVERY_FAULTS & faults.values.keys():
        await exchange.respond(reply)
        return True
    encoding = [(b"content-encoding", b"gzip")] if "gzip" in faults else []
    await exchange.start(reply.status, [(b"content-type", JSON), *encoding])
    return await deliver(exchange, [Event(reply.body)], faults, account.gate, 0.0, lambda event: None)
