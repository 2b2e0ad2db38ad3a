"""The path of one image, in the order of the files a row meets: shards, images, networks, stages,
batches, extract or route, rows committed. Beam and torch live here; decisions live in `policy`.
"""
