//! The httparse head parser.

/// The head parser over `httparse`.
#[derive(Debug)]
pub struct Httparse;
impl Httparse {
    pub fn new(_: &crate::limits::Limits) -> Self {
        Self
    }
}
pub struct Nope;
impl super::DecodeBody for Nope {
    fn decode(&mut self, _: &mut bytes::BytesMut) -> Result<Option<super::Piece>, crate::Reject> {
        Ok(None)
    }
    fn remaining(&self) -> Option<u64> {
        None
    }
}
impl super::Codec for Httparse {
    type Decoder = Nope;
    type Encoder = super::encode::BodyEncoder;
    fn decode_head(
        &mut self,
        _: &mut bytes::BytesMut,
        _: &mut http::request::Parts,
    ) -> Result<Option<super::Head<Nope>>, crate::Reject> {
        Ok(None)
    }
    fn encode_head(
        &mut self,
        e: &mut super::Exchange,
        r: super::Reply<'_>,
        o: &mut super::Output,
    ) -> Result<Self::Encoder, super::EncodeError> {
        super::encode::head(e, r, o)
    }
    fn encode_interim(
        &mut self,
        s: http::StatusCode,
        f: &http::HeaderMap,
        o: &mut super::Output,
    ) -> Result<(), super::EncodeError> {
        super::encode::interim(s, f, o)
    }
}
