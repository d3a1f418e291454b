"""The chapters: what each computes, measures, claims and draws; `registry.py` is the only list of them."""
