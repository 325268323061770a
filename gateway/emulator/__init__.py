"""MiniToolAI on this machine: free, offline, deterministic, and willing to misbehave.

The emulator answers the three documented paths the way MiniToolAI's documentation shows them, keeps a
prepaid balance that runs out, and writes a bill of what it truly generated beside what it claimed.
Tests compare the gateway's ledger with that bill; developers use it instead of spending money.

It shares no code with the rest of `gateway`, not even an import: it validates, counts tokens and prices
on its own. Would it use the gateway's arithmetic, the two books could only ever agree with themselves.

    contract   what MiniToolAI documents: models, fields, ranges; a body becomes a request or a 400
    tokens     o200k_base from the wheel's data; what prompts, images and answers count
    answers    a request becomes the events of its answer, always the same ones
    prices     nano-USD per token and per image
    bill       one line a call: claimed and generated; the balance
    jobs, png  image jobs that pend, then serve a real picture
    faults     every fault on request, with its explanation; shapes applies those that change the events
    exchange   one HTTP exchange: reading, writing, noticing that the client left, breaking the connection
    delivery   writes an answer's events the way the faults ask
    account    the state of one emulator
    chat, images, control   the endpoints
    app        dispatch of a path to its endpoint
    server     uvicorn around it; `running()` for tests
"""
