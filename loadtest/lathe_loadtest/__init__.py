"""Drives a server as cameras would: open loop, at the cameras' own pace."""
