const view = document.querySelector("dialog");
const big = view.querySelector("img");
const text = view.querySelector("p");

document.addEventListener("click", event => {
  const small = event.target.closest("button.zoom");
  if (small) {
    big.src = small.firstElementChild.src;
    big.alt = text.textContent = small.title;
    view.showModal();
  } else if (view.open) view.close();
});
