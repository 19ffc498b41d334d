"""The image is built and tried on this machine, by buildah, without Docker: `make image-test`."""
