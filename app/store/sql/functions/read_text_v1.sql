-- A text of 1 to p_most characters; with p_header, of one that travels in a header, where a control character could start another: only
-- printable ones, as Python's str.isprintable has them, except that code points without a meaning yet are let through.
create function sluice.read_text_v1(p_value jsonb, p_where text, p_most integer, p_header boolean default false) returns text
language plpgsql stable
as $$
declare v_text text := p_value #>> '{}';
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) <> 'string' then
    perform sluice.refuse_v1('invalid', p_where, 'expected a string');
  elsif v_text = '' then
    perform sluice.refuse_v1('invalid', p_where, 'must not be empty');
  elsif length(v_text) > p_most then
    perform sluice.refuse_v1('invalid', p_where, format('is longer than %s characters', p_most));
  elsif p_header and v_text ~ ('[\u0001-\u001f\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u1680\u180e'
      || '\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\ue000-\uf8ff\ufeff\ufff9-\ufffb\U000110bd\U000110cd'
      || '\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f\U000f0000-\U000ffffd'
      || '\U00100000-\U0010fffd]') then
    perform sluice.refuse_v1('invalid', p_where, 'must not contain control characters');
  end if;
  return v_text;
end $$;
