"""The process that counts: asked on its standard input, answers on its standard output, ends when either is closed.

So it ends with its gateway, however that ends. Signals that are meant for the gateway do not end it before.
"""

import os
import signal
import sys
from typing import BinaryIO

import msgspec

from gateway.counting.question import ANSWER_BYTES, BYTE_ORDER, LENGTH_BYTES, READY, Question
from gateway.wire.call import PromptText
from gateway.wire.tokens import count, count_prompt

_BEHIND_THE_GATEWAY = 10


def main() -> None:
    for meant_for_the_gateway in (signal.SIGINT, signal.SIGTERM):
        signal.signal(meant_for_the_gateway, signal.SIG_IGN)
    os.nice(_BEHIND_THE_GATEWAY)
    count("")  # loads the encoding
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more questions."""
    decoder = msgspec.msgpack.Decoder(Question)
    while length := questions.read(LENGTH_BYTES):
        asked = decoder.decode(questions.read(int.from_bytes(length, BYTE_ORDER)))
        prompt = PromptText(tuple(text.decode() for text in asked.texts), asked.extra_tokens)
        answers.write(count_prompt(prompt, asked.tokens_max).to_bytes(ANSWER_BYTES, BYTE_ORDER))
        answers.flush()


if __name__ == "__main__":
    main()
