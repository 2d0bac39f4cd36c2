"""One module a contender, each as good as its authors' documentation teaches."""
