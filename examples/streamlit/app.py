"""A page with a text, a button and a count that lives in the session."""

import streamlit as st

TEXT = "This text stands in app.py."


@st.fragment(run_every="60s")
def stay_current():
    """Shows nothing. Because of it the page asks for a new run when it has reconnected.

    Without anything that runs by itself, Streamlit's page keeps showing what it had before a restart
    until somebody clicks.
    """


def count():
    st.session_state.count += 1


st.set_page_config(page_title="Streamlit behind simple-artifact-server")
st.session_state.setdefault("count", 0)
stay_current()

st.title("Hello")
st.write(TEXT)
st.button("Count", on_click=count)
st.write(f"Counted to {st.session_state.count}.")
