"""Brain-tumour segmentation on BraTS MRI as a distributed batch job."""

__version__ = "0.1.0"
