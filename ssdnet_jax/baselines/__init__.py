"""Methods SSDnet is compared with: one file each, an image in, a raw anomaly map out."""
