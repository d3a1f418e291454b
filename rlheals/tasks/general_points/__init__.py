"""GeneralPoints: make 24 from four cards."""
