"""Load data sets from files, the hub or Python objects, and split them over sites.

Each line shows a conversion, and the modules that make it:

source  ->  Undecoded (`sources`, `formats`)  ->  ImageSet (`decoding`, `image_files`, `cache`)
ImageSet  ->  one per site (`partition`)
tables of network flows  ->  ImageSet (`flows`)
"""
