use crate::{BoxError, Places};
pub fn write(_: &Places) -> Result<(), BoxError> { Ok(()) }
