//! The pages in `docs/` are true: what they tell people to type has been typed, and what they point at is there.

mod page;
mod site;
mod typed;
mod world;
