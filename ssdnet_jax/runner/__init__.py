"""Running the method over files: work list, workdir, progress, devices."""
