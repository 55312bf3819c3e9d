"""Plans on oneDNN's primitives and layouts: channels in blocks of a register's size, kept so between layers."""
