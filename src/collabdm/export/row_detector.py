"""The network of a detector for rows of a table, with the encoding of its schema inside.

    input    numbers         float64 (n, numeric columns), in the units of the table; NaN is missing
             categories      int64 (n, columns of categories), positions in the list of values;
                             -1 is another value, -2 is missing
    output   probabilities   float32 (n, classes)

A number v, clipped to low .. high, becomes (f(v) - f(low)) / (f(high) - f(low)), with f(v) = v
(linear) or sign(v) log(1 + |v| / unit) (log), as in `collabdm.documents.flow_schema`, rounded to
float32. `description` lists the columns in the order of the inputs.

Reference: the Open Neural Network Exchange, https://onnx.ai.
"""

from typing import Any

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor, nn

from collabdm.data.flows.cells import ABSENT, NOT_LISTED
from collabdm.data.flows.rows import places
from collabdm.documents.flow_schema import Category, FlowSchema, Number
from collabdm.matching.networks import Network
from collabdm.scoring.trained_model import TrainedModel


class RowDetector(nn.Module):
    """The network to export: it encodes rows and computes class probabilities.

    Args:
        network: A trained network.
        model: The model of that network, with the normalisation of encoded values.
        schema: The schema of the rows.
    """

    low: Tensor
    high: Tensor
    unit: Tensor
    is_log: Tensor
    owner: Tensor
    value: Tensor
    order: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, model: TrainedModel, schema: FlowSchema) -> None:
        super().__init__()
        self.network = network
        numbers = [column for column in schema.features if isinstance(column, Number)]

        def of_numbers(values: list[float]) -> Float64[Tensor, " numbers"]:
            return torch.tensor(values, dtype=torch.float64)

        owner, value, order = _layout(schema)
        buffers = {
            "low": of_numbers([column.low for column in numbers]),
            "high": of_numbers([column.high for column in numbers]),
            "unit": of_numbers([column.unit for column in numbers]),
            "is_log": torch.tensor([column.scale == "log" for column in numbers]).bool(),
            "owner": owner,
            "value": value,
            "order": order,
            "mean": torch.tensor(model.image.mean),
            "std": torch.tensor(model.image.std),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)

    def forward(self, numbers: Tensor, categories: Tensor) -> Float32[Tensor, "n classes"]:
        """Compute the probabilities of the classes from the values of rows."""
        encoded = self.encode(numbers, categories)
        return self.network(((encoded - self.mean) / self.std)[:, :, None, None]).softmax(1)

    def encode(
        self,
        numbers: Float64[Tensor, "n numbers"],
        categories: Int64[Tensor, "n categories"],
    ) -> Float32[Tensor, "n width"]:
        """Encode rows as `collabdm.data.flows.rows` does."""
        missing = torch.isnan(numbers)
        present = torch.where(missing, self.low, numbers)
        clipped = torch.minimum(torch.maximum(present, self.low), self.high)

        low, high = self._curve(self.low), self._curve(self.high)
        shares = (self._curve(clipped) - low) / (high - low)
        shares = torch.where(missing, torch.zeros_like(shares), shares)

        is_value = categories[:, self.owner] == self.value
        parts = (shares.float(), missing.float(), is_value.float())
        return torch.cat(parts, 1)[:, self.order]

    def _curve(self, values: Tensor) -> Tensor:
        curved = torch.sign(values) * torch.log(1 + torch.abs(values) / self.unit)
        return torch.where(self.is_log, curved, values)


def _layout(
    schema: FlowSchema,
) -> tuple[Int64[Tensor, " values"], Int64[Tensor, " values"], Int64[Tensor, " width"]]:
    """Find the category and the position that each value of the categories means, and the order.

    The order selects the values of a row out of the shares of all numbers, whether they are
    missing, and the values of all categories.
    """
    numbers = sum(isinstance(column, Number) for column in schema.features)
    owner: list[int] = []
    value: list[int] = []
    order: list[int] = []
    number = category = 0

    for column, _ in places(schema):
        if isinstance(column, Number):
            order += [number] if column.complete else [number, numbers + number]
            number += 1
            continue
        order += range(2 * numbers + len(value), 2 * numbers + len(value) + column.width)
        owner += [category] * column.width
        value += [*range(len(column.values)), NOT_LISTED, ABSENT]
        category += 1
    return torch.tensor(owner).long(), torch.tensor(value).long(), torch.tensor(order).long()


def description(schema: FlowSchema) -> dict[str, Any]:
    """Describe the inputs as JSON values: the columns in order, and the texts of missing values."""
    return {
        "numbers": [column.name for column in schema.features if isinstance(column, Number)],
        "categories": {
            column.name: column.values for column in schema.features if isinstance(column, Category)
        },
        "missing": schema.missing,
        "missing_numbers": schema.missing_numbers,
    }


def example(schema: FlowSchema) -> tuple[Tensor, Tensor]:
    """Return inputs of two rows."""
    counts = [
        sum(isinstance(column, kind) for column in schema.features) for kind in (Number, Category)
    ]
    return torch.zeros(2, counts[0], dtype=torch.float64), torch.zeros(2, counts[1]).long()
