"""A store on another host: what travels between the two ButterSinks, and who serves it there."""
