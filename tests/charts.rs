//! What `deploy/` installs, judged by real programs: helm renders it, kubeconform and a real kube-apiserver look at it, and the
//! rights that it gives are used by a real Moorline.
//!
//! No kubelet runs here, and no controller of Deployments: that the pods start from an image is not tested.

mod flags;
mod kustomize;
mod life;
mod matrix;
mod refused;
mod rights;
mod schemas;
mod story;
mod valid;
