"""FEED: batches of paired inputs, data sets of them, mixup and augmentation."""
