"""Reading and writing files: images, lists, tar files, downloads, shards, the pixel cache."""
