"""The client part: moves every float a little, and tells their mean."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with arrays that differ from those sent, and from those of the other nodes."""
    step = np.float32(0.01 * (1 + int(context.node_config["partition-id"])))
    arrays = [array + step for array in message.content["arrays"].to_numpy_ndarrays()]
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 100})})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with the mean of the first array."""
    mean = float(np.mean(message.content["arrays"].to_numpy_ndarrays()[0]))
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 100, "mean": mean})}), reply_to=message)
