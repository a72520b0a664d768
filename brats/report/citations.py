"""Works to cite with results of this project, in BibTeX, by their keys."""

CITATIONS = {
    "menze2015": """@article{menze2015,
  author  = {Menze, Bjoern H. and others},
  title   = {The Multimodal Brain Tumor Image Segmentation Benchmark ({BRATS})},
  journal = {IEEE Transactions on Medical Imaging},
  volume  = {34}, number = {10}, pages = {1993--2024}, year = {2015},
  doi     = {10.1109/TMI.2014.2377694}
}""",
    "bakas2017": """@article{bakas2017,
  author  = {Bakas, Spyridon and others},
  title   = {Advancing The Cancer Genome Atlas glioma {MRI} collections with expert segmentation labels and
             radiomic features},
  journal = {Scientific Data},
  volume  = {4}, pages = {170117}, year = {2017},
  doi     = {10.1038/sdata.2017.117}
}""",
    "baid2021": """@misc{baid2021,
  author = {Baid, Ujjwal and others},
  title  = {The {RSNA-ASNR-MICCAI} {BraTS} 2021 Benchmark on Brain Tumor Segmentation and Radiogenomic
            Classification},
  year   = {2021}, eprint = {2107.02314}, archivePrefix = {arXiv}
}""",
    "ronneberger2015": """@inproceedings{ronneberger2015,
  author    = {Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas},
  title     = {{U-Net}: Convolutional Networks for Biomedical Image Segmentation},
  booktitle = {Medical Image Computing and Computer-Assisted Intervention (MICCAI)},
  pages     = {234--241}, year = {2015},
  doi       = {10.1007/978-3-319-24574-4_28}
}""",
    "iakubovskii2019": """@misc{iakubovskii2019,
  author = {Iakubovskii, Pavel},
  title  = {Segmentation Models {PyTorch}},
  year   = {2019}, note = {GitHub repository qubvel/segmentation\\_models.pytorch}
}""",
    "tan2019": """@inproceedings{tan2019,
  author    = {Tan, Mingxing and Le, Quoc V.},
  title     = {{EfficientNet}: Rethinking Model Scaling for Convolutional Neural Networks},
  booktitle = {International Conference on Machine Learning (ICML)},
  pages     = {6105--6114}, year = {2019}
}""",
    "paszke2019": """@inproceedings{paszke2019,
  author    = {Paszke, Adam and others},
  title     = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
  booktitle = {Advances in Neural Information Processing Systems 32},
  pages     = {8024--8035}, year = {2019}
}""",
    "moritz2018": """@inproceedings{moritz2018,
  author    = {Moritz, Philipp and others},
  title     = {{Ray}: A Distributed Framework for Emerging {AI} Applications},
  booktitle = {USENIX Symposium on Operating Systems Design and Implementation (OSDI)},
  pages     = {561--577}, year = {2018}
}""",
    "nikolov2021": """@article{nikolov2021,
  author  = {Nikolov, Stanislav and others},
  title   = {Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy: Deep Learning Algorithm
             Development and Validation Study},
  journal = {Journal of Medical Internet Research},
  volume  = {23}, number = {7}, pages = {e26151}, year = {2021},
  doi     = {10.2196/26151}
}""",
    "mehta2022": """@article{mehta2022,
  author  = {Mehta, Raghav and others},
  title   = {{QU-BraTS}: {MICCAI} {BraTS} 2020 Challenge on Quantifying Uncertainty in Brain Tumor Segmentation --
             Analysis of Ranking Scores and Benchmarking Results},
  journal = {Machine Learning for Biomedical Imaging},
  year    = {2022}, eprint = {2112.10074}, archivePrefix = {arXiv}
}""",
}
