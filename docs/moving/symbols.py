lr, wd, m, d, c, n, k = 0.02, 0.1, 0.9, 0.3, 0.5, 10, 4
b1, b2, eps = 0.8, 0.95, 1e-3


def s(t):  # a schedule, a function of the number of updates done
    return lr / (1 + t) ** 0.5
