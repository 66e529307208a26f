"""The client part: children that lead sessions of their own and are deaf to signals, then arithmetic without end."""

import os
import signal
import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Never answer."""
    for _ in range(int(context.run_config["children"])):
        if os.fork() == 0:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True:
                time.sleep(3600)
    print("at work", flush=True)
    while True:
        sum(range(10**8))
