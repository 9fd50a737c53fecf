"""Where tasks run: deliveries that come by HTTP, and workers that ask for them."""
