"""The client part: children that lead sessions of their own and are deaf to signals, then torch without end."""

import os
import signal
import time

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()
model = torch.nn.Linear(8, 1)
optimiser = torch.optim.Adam(model.parameters())


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
    matrix = torch.rand(1500, 1500)
    while True:
        matrix = torch.linalg.matrix_power(matrix / matrix.norm(), 64)
