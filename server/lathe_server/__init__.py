"""The server: streams of frames in, detections out, on variants that are swapped while they serve."""
