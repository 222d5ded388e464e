pub(crate) fn html(_: &crate::run::Outcome) -> String {
    String::new()
}
