"""The napari plugin: label, train, proofread and measure in a window. Nothing else imports it."""
