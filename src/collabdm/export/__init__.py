"""Export distilled sets and trained models to the formats of other software.

- `dataset` writes a set as a folder for the Hugging Face hub, PNG pictures, or NumPy arrays.
- `card` writes the card of a set for the hub.
- `onnx` writes a trained model as an ONNX file that runs without collabdm.
- `flow_classifier` applies a trained model to a table of network flows.
- `pictures` draws contact sheets of a set.
"""
