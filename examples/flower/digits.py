"""Federated averaging on Flower: one machine, or many, run the notebook's own `labkit.federated.Client`."""

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch import nn

import labkit as lk

client = ClientApp()
server = ServerApp()


def new_model() -> nn.Module:
    """Everybody builds the same network, so that only weights need to travel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def my_data(partition: int, partitions: int) -> lk.federated.Client:
    """A client with its own share of the digits. Here it is cut out of one file; on a real machine it is just there."""
    pixels, digits = load_digits(return_X_y=True)
    mine = lk.federated.iid_split(len(digits), partitions)[partition]
    return lk.federated.Client(torch.tensor(pixels / 16, dtype=torch.float32)[mine], torch.tensor(digits)[mine])


@client.train()
def train(message: Message, context: Context) -> Message:
    """Answer the server's weights with those after training on the client's own data, as the server asks."""
    weights = torch.tensor(message.content["arrays"]["weights"].numpy())
    asked = message.content["config"]
    me = my_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    trained = me.train(
        weights,
        new_model(),
        epochs=asked["epochs"],
        batch_size=asked["batch-size"],
        learning_rate=asked["learning-rate"],
        seed=asked["server-round"],
    )
    answer = {"arrays": as_record(trained), "metrics": MetricRecord({"num-examples": len(me)})}
    return Message(RecordDict(answer), reply_to=message)


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """Average what the clients train, round after round."""
    settings = context.run_config
    strategy = FedAvg(fraction_evaluate=0, min_train_nodes=settings["clients"], min_available_nodes=settings["clients"])
    result = strategy.start(
        grid,
        initial_arrays=as_record(lk.federated.weights_of(new_model())),
        num_rounds=settings["rounds"],
        train_config=ConfigRecord({key: settings[key] for key in ("epochs", "batch-size", "learning-rate")}),
    )
    np.save(settings["save-to"], result.arrays["weights"].numpy())


def as_record(weights: torch.Tensor) -> ArrayRecord:
    return ArrayRecord({"weights": Array(weights.numpy())})
