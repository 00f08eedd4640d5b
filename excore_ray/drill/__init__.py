"""The drill: an exchange of its own under fire, and whether it kept every promise meanwhile."""
