//! The published types of `moorline.dev/v1alpha1`, one file per kind: manifest, CRD schema and wire at once, with the
//! conversions from and to `model`.
//!
//! What it does not: no I/O, no defaults that depend on who asks, no field validation (`fieldValidation` is `http`'s).

pub mod push;
