"""Pages for people: one self-contained HTML file each, pictures as inline SVG, no script, no address."""
