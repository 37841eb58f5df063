//! Second implementations of this module's seams.
