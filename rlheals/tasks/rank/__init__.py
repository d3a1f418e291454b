"""The rank of a matrix of whole numbers whose size says nothing about it."""
