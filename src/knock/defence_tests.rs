//! Lock-outs and the cap, as the gatekeeper applies them.

use super::*;
use crate::config::{Checked, parse};
use crate::knock::proof::Claim;
