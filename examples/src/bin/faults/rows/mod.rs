//! The rows, each with what it does to the control plane.

mod content;
mod herd;
mod many;
mod outage;
mod pushes;

use std::pin::Pin;

use mesh_examples::Failure;

use crate::stage::Stage;
use mesh_examples::row::Row;

type Measured = Pin<Box<dyn Future<Output = Result<Vec<Row>, Failure>>>>;

/// Measures one row, or a few that belong together.
pub(crate) type Measure = fn(Stage) -> Measured;

/// Every row, by name.
pub(crate) const ROWS: [(&str, Measure); 12] = [
    ("killed", |stage| Box::pin(outage::killed(stage))),
    ("halfway", |stage| Box::pin(outage::halfway(stage))),
    ("back", |stage| Box::pin(outage::back(stage))),
    ("bad", |stage| Box::pin(content::bad(stage))),
    ("scrambled", |stage| Box::pin(content::scrambled(stage))),
    ("garbage", |stage| Box::pin(content::garbage(stage))),
    ("order", |stage| Box::pin(content::order(stage))),
    ("emptied", |stage| Box::pin(content::emptied(stage))),
    ("storm", |stage| Box::pin(pushes::storm(stage))),
    ("churn", |stage| Box::pin(pushes::churn(stage))),
    ("many", |stage| Box::pin(many::many(stage))),
    ("herd", |_| Box::pin(async { herd::herd() })),
];
