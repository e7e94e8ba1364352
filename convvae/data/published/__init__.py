"""The published data sets, each file checked by its digest.

`mnist` has MNIST and its kin, in the format of `idx`; `colour` has CIFAR and SVHN; `download`
fetches their files.
"""
