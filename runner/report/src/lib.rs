//! What was measured, for people: the data that stages leave behind, and the page that is made from it.
//!
//! A stage that evaluates leaves a file [`EVALUATION`]: an [`Evaluation`], from which a page can be made long after, without the
//! dataset. It is JSON, so that other programs can read it, too.

mod evaluation;
mod figures;
mod html;
mod page;
mod sections;

pub use evaluation::{
    Bin, Class, Classification, EVALUATION, Estimate, Evaluation, Finding, Mistake, Pair, Pairs, Retrieval, Template,
    Templates, Unreadable,
};
pub use html::grouped;
pub use page::{BadRow, Metric, Page, Stage};
