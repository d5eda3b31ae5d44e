"""Which terms of differential equations were found, and how far do they carry?"""
