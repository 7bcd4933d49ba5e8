"""Distilled sets and trained models in the formats of other software.

dataset          a set as a folder for the Hugging Face hub (`card`), PNG pictures, or NumPy arrays
onnx             a trained model as an ONNX file that runs without collabdm
flow_classifier  a trained model applied to a table of network flows
pictures         contact sheets of a set
"""
